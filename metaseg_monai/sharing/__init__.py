"""What users do around a training: check a table, prepare, start a study, predict, score."""
