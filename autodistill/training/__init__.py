"""WORKS: data, teachers, students, losses and the training loop. Never imports search or optuna."""
