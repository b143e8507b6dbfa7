"""All tables and figures of a paper: what is run for them, when, and the page that shows them."""
