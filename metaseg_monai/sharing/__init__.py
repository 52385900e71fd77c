"""What users do with trained models and tables: check, predict."""
