"""Routes of hosting platforms: SageMaker, Vertex AI, KServe."""
