"""The engine as an HTTP service that clients of OpenAI's API already know."""
