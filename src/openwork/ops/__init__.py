"""The operations of a Transformer: a reference that says what each one means, and backends that are faster."""
