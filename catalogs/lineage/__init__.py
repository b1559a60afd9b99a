"""What a checkpoint was trained on: lineage.json and lineage.parquet beside its weights."""
