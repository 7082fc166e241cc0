"""Student networks: built from their settings, from families, with pretrained weights and their licences."""
