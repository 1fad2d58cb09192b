"""What a preparation leaves: models, accuracy, times, one folder."""
