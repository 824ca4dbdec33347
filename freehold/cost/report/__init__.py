"""What a plan or a review looks like: terminal, HTML, Markdown, JSON. Text in, text out; nothing is computed anew."""
