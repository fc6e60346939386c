"""Word, PowerPoint, Excel and EPUB: archives of XML, checked before they are read."""
