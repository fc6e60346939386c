"""Retrieval data: BEIR folders, leak-free splits."""
