"""Set-up of a study: checks names, prepares images, weights, teacher and survey, and repairs a damaged study."""
