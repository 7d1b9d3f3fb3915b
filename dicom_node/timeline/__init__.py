"""The time line, pure: series roles, time points, identity and the decision. No socket, SQL, clock or torch."""
