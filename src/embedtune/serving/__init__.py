"""The server: embeddings as the OpenAI API has them, over models that this package made."""
