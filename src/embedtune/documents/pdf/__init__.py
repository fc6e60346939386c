"""PDF: lines with their places on the page, in reading order, with the tables among them."""
