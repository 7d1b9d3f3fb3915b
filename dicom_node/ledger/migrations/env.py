"""Alembic's entry point: migrates over the connection that `Database.migrate` hands in."""

from alembic import context

from dicom_node.ledger.tables import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata, render_as_batch=True)
with context.begin_transaction():
    context.run_migrations()
