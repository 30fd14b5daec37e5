"""What Alembic runs: the migrations, inside the transaction that ``schema_version`` has begun."""

from alembic import context

attributes = context.config.attributes
context.configure(
    connection=attributes["connection"],
    target_metadata=attributes["metadata"],
    version_table=attributes["version_table"],
    compare_type=True,
)
with context.begin_transaction():
    context.run_migrations()
