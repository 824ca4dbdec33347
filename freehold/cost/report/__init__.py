"""A plan, a review and a sizing as text, Markdown, HTML and JSON. May import all of cost but `intake`."""
