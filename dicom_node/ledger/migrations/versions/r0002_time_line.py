"""Identity by hand, priors, orders, rejections, and reports encoded anew for a corrected patient."""

import sqlalchemy as sa
from alembic import op

from dicom_node.ledger.tables import UtcDateTime

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add what the time line needs beyond what was received."""
    op.create_table(
        "accepted_value",
        sa.Column("patient", sa.Integer(), nullable=False),
        sa.Column("field", sa.String(length=32), nullable=False),
        sa.Column("value", sa.String(length=512), nullable=False),
        sa.Column("since", UtcDateTime(), nullable=False),
        sa.Column("source", sa.String(length=64), nullable=False),
        sa.ForeignKeyConstraint(
            ["patient"],
            ["patient.id"],
        ),
        sa.PrimaryKeyConstraint("patient", "field", "value"),
    )
    op.create_table(
        "case_order",
        sa.Column("patient", sa.Integer(), nullable=False),
        sa.Column("task", sa.String(length=64), nullable=False),
        sa.Column("kind", sa.String(length=8), nullable=False),
        sa.Column("given_at", UtcDateTime(), nullable=False),
        sa.Column("actor", sa.String(length=64), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(
            ["patient"],
            ["patient.id"],
        ),
        sa.PrimaryKeyConstraint("patient", "task", "kind"),
    )
    op.create_table(
        "patient_alias",
        sa.Column("issuer", sa.String(length=64), nullable=False),
        sa.Column("patient_id", sa.String(length=64), nullable=False),
        sa.Column("patient", sa.Integer(), nullable=False),
        sa.Column("since", UtcDateTime(), nullable=False),
        sa.Column("source", sa.String(length=64), nullable=False),
        sa.ForeignKeyConstraint(
            ["patient"],
            ["patient.id"],
        ),
        sa.PrimaryKeyConstraint("issuer", "patient_id"),
    )
    op.create_index("ix_patient_alias_patient", "patient_alias", ["patient"], unique=False)
    op.create_table(
        "patient_statement",
        sa.Column("issuer", sa.String(length=64), nullable=False),
        sa.Column("patient_id", sa.String(length=64), nullable=False),
        sa.Column("name", sa.String(length=512), nullable=False),
        sa.Column("birth_date", sa.String(length=8), nullable=False),
        sa.Column("sex", sa.String(length=16), nullable=False),
        sa.Column("since", UtcDateTime(), nullable=False),
        sa.Column("source", sa.String(length=64), nullable=False),
        sa.PrimaryKeyConstraint("issuer", "patient_id"),
    )
    op.create_table(
        "prior_lookup",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("patient", sa.Integer(), nullable=False),
        sa.Column("pacs", sa.String(length=32), nullable=False),
        sa.Column("state", sa.String(length=8), nullable=False),
        sa.Column("opened_at", UtcDateTime(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("next_attempt_at", UtcDateTime(), nullable=False),
        sa.Column("finished_at", UtcDateTime(), nullable=True),
        sa.Column("held", sa.Text(), nullable=False),
        sa.Column("found", sa.Integer(), nullable=False),
        sa.Column("wanted", sa.Integer(), nullable=False),
        sa.Column("refused", sa.Integer(), nullable=False),
        sa.Column("error", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(
            ["patient"],
            ["patient.id"],
        ),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("ix_prior_lookup_patient", "prior_lookup", ["patient"], unique=False)
    op.create_index("ix_prior_lookup_state", "prior_lookup", ["state"], unique=False)
    op.create_table(
        "rejected_instance",
        sa.Column("sop_instance_uid", sa.String(length=64), nullable=False),
        sa.Column("note_sop_instance_uid", sa.String(length=64), nullable=False),
        sa.Column("patient", sa.Integer(), nullable=False),
        sa.Column("code", sa.String(length=16), nullable=False),
        sa.Column("noted_at", UtcDateTime(), nullable=False),
        sa.ForeignKeyConstraint(
            ["patient"],
            ["patient.id"],
        ),
        sa.PrimaryKeyConstraint("sop_instance_uid", "note_sop_instance_uid"),
    )
    op.create_index("ix_rejected_instance_patient", "rejected_instance", ["patient"], unique=False)
    op.create_table(
        "study_owner",
        sa.Column("study_instance_uid", sa.String(length=64), nullable=False),
        sa.Column("patient", sa.Integer(), nullable=False),
        sa.Column("since", UtcDateTime(), nullable=False),
        sa.Column("source", sa.String(length=64), nullable=False),
        sa.ForeignKeyConstraint(
            ["patient"],
            ["patient.id"],
        ),
        sa.PrimaryKeyConstraint("study_instance_uid"),
    )
    op.create_index("ix_study_owner_patient", "study_owner", ["patient"], unique=False)
    op.create_table(
        "prior_series",
        sa.Column("pacs", sa.String(length=32), nullable=False),
        sa.Column("series_instance_uid", sa.String(length=64), nullable=False),
        sa.Column("study_instance_uid", sa.String(length=64), nullable=False),
        sa.Column("patient", sa.Integer(), nullable=False),
        sa.Column("lookup", sa.Integer(), nullable=False),
        sa.Column("instances", sa.Integer(), nullable=True),
        sa.Column("state", sa.String(length=8), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("method", sa.String(length=16), nullable=True),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("next_attempt_at", UtcDateTime(), nullable=False),
        sa.Column("first_attempt_at", UtcDateTime(), nullable=True),
        sa.Column("started_at", UtcDateTime(), nullable=True),
        sa.Column("finished_at", UtcDateTime(), nullable=True),
        sa.Column("fetched", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(
            ["lookup"],
            ["prior_lookup.id"],
        ),
        sa.ForeignKeyConstraint(
            ["patient"],
            ["patient.id"],
        ),
        sa.PrimaryKeyConstraint("pacs", "series_instance_uid"),
    )
    op.create_index("ix_prior_series_patient", "prior_series", ["patient"], unique=False)
    op.create_index("ix_prior_series_state", "prior_series", ["state"], unique=False)
    op.create_index("ix_prior_series_study_instance_uid", "prior_series", ["study_instance_uid"], unique=False)
    op.create_table(
        "prior_study",
        sa.Column("pacs", sa.String(length=32), nullable=False),
        sa.Column("study_instance_uid", sa.String(length=64), nullable=False),
        sa.Column("patient", sa.Integer(), nullable=False),
        sa.Column("lookup", sa.Integer(), nullable=False),
        sa.Column("day", sa.Date(), nullable=True),
        sa.Column("state", sa.String(length=8), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(
            ["lookup"],
            ["prior_lookup.id"],
        ),
        sa.ForeignKeyConstraint(
            ["patient"],
            ["patient.id"],
        ),
        sa.PrimaryKeyConstraint("pacs", "study_instance_uid"),
    )
    op.create_index("ix_prior_study_patient", "prior_study", ["patient"], unique=False)
    op.add_column("arrival", sa.Column("fetched_from", sa.String(length=32), nullable=True))
    op.add_column("delivery", sa.Column("encoding", sa.Integer(), server_default="1", nullable=False))
    op.add_column("outbox_object", sa.Column("encoding", sa.Integer(), server_default="1", nullable=False))
    op.add_column("run", sa.Column("encoding", sa.Integer(), server_default="1", nullable=False))
    op.add_column("run", sa.Column("demographics", sa.Text(), nullable=True))
