"""Student networks: families and how to build them, pretrained weights and their licences, embeddings."""
