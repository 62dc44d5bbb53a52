"""The table of traces."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Make the table, and the index by which the last ones are found and the old ones purged."""
    op.create_table(
        "traces",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("created", sa.Double, nullable=False, index=True),
        sa.Column("api", sa.Text, nullable=False),
        sa.Column("model", sa.Text),
        sa.Column("strategy", sa.Text),
        sa.Column("arm", sa.Text),
        sa.Column("outcome", sa.Text),
        sa.Column("reason", sa.Text),
        sa.Column("status", sa.Integer, nullable=False),
        sa.Column("failed", sa.Boolean, nullable=False),
        sa.Column("client_left", sa.Boolean, nullable=False),
        sa.Column("streamed", sa.Boolean, nullable=False),
        sa.Column("cached", sa.Boolean, nullable=False),
        sa.Column("seconds", sa.Double, nullable=False),
        sa.Column("calls", sa.Integer, nullable=False),
        sa.Column("prompt_tokens", sa.BigInteger),
        sa.Column("completion_tokens", sa.BigInteger),
        sa.Column("total_tokens", sa.BigInteger),
        sa.Column("spent_tokens", sa.BigInteger),
        sa.Column("doubts", sa.Text),
        sa.Column("confidence", sa.Double),
        sa.Column("upstream", sa.Text),
        sa.Column("key_id", sa.Text),
        sa.Column("error", sa.Text),
        sa.Column("trace", sa.Text),
    )


def downgrade() -> None:
    """Take it away."""
    op.drop_table("traces")
