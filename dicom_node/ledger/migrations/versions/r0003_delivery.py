"""What each destination took, storage commitment, and withdrawal."""

import sqlalchemy as sa
from alembic import op

from dicom_node.ledger.tables import UtcDateTime

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add what follows a report after it was sent."""
    op.add_column("run", sa.Column("requested_by", sa.String(length=64), nullable=True))
    op.add_column("delivery", sa.Column("report_class", sa.String(length=64), nullable=True))
    op.add_column("delivery", sa.Column("note", sa.String(length=64), nullable=True))
    op.add_column("delivery", sa.Column("to_commit", sa.Boolean(), server_default=sa.false(), nullable=False))
    op.add_column("delivery", sa.Column("commit_requests", sa.Integer(), server_default="0", nullable=False))
    op.add_column("delivery", sa.Column("committed_at", UtcDateTime(), nullable=True))
    op.create_table(
        "handed_over",
        sa.Column("run_key", sa.String(length=64), nullable=False),
        sa.Column("destination", sa.String(length=32), nullable=False),
        sa.Column("sop_instance_uid", sa.String(length=64), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=True),
        sa.ForeignKeyConstraint(["run_key"], ["run.run_key"]),
        sa.ForeignKeyConstraint(["sop_instance_uid"], ["outbox_object.sop_instance_uid"]),
        sa.PrimaryKeyConstraint("run_key", "destination", "sop_instance_uid"),
    )
    op.create_table(
        "commitment",
        sa.Column("transaction_uid", sa.String(length=64), nullable=False),
        sa.Column("run_key", sa.String(length=64), nullable=False),
        sa.Column("destination", sa.String(length=32), nullable=False),
        sa.Column("instances", sa.Text(), nullable=False),
        sa.Column("requested_at", UtcDateTime(), nullable=False),
        sa.Column("answered_at", UtcDateTime(), nullable=True),
        sa.ForeignKeyConstraint(["run_key"], ["run.run_key"]),
        sa.PrimaryKeyConstraint("transaction_uid"),
    )
    op.create_index("ix_commitment_run_key", "commitment", ["run_key"], unique=False)
    op.create_table(
        "withdrawal",
        sa.Column("run_key", sa.String(length=64), nullable=False),
        sa.Column("title", sa.String(length=16), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("actor", sa.String(length=64), nullable=False),
        sa.Column("withdrawn_at", UtcDateTime(), nullable=False),
        sa.ForeignKeyConstraint(["run_key"], ["run.run_key"]),
        sa.PrimaryKeyConstraint("run_key"),
    )
    # A report that was sent before this revision is there whole; of one that was tried in vain, some of it may be.
    op.execute(
        "INSERT INTO handed_over (run_key, destination, sop_instance_uid, attempt) "
        "SELECT delivery.run_key, delivery.destination, outbox_object.sop_instance_uid, "
        "CASE WHEN delivery.state = 'sent' THEN NULL ELSE delivery.attempts END "
        "FROM delivery JOIN outbox_object ON outbox_object.run_key = delivery.run_key "
        "AND outbox_object.encoding = delivery.encoding "
        "WHERE delivery.attempts > 0"
    )
