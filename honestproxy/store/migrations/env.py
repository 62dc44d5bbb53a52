"""What alembic runs: the migrations, on the connection that it was given."""

from alembic import context

from honestproxy.store.schema import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    version_table=context.config.attributes["version_table"],
)
context.run_migrations()
