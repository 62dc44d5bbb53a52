"""Traces in a database: one row a request, SQLite or PostgreSQL."""
