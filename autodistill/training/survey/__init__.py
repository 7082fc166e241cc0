"""Known costs of students before training: the survey, predicted costs of other students, checks of a search space."""
