"""What is published: model and dataset cards, their tables and figures, studies, and the way to the Hub."""
