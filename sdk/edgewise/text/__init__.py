"""sdk, text: between text and tokens: the tokenizer, streaming that splits no character, chat templates."""
