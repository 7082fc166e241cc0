"""Answers of a teacher to views of the images, kept in files that several processes share."""
