"""Text and token ids: tokenizer, streams of text, chat templates. Imports core.errors and nothing else of ours."""
