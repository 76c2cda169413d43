"""What the driver does on the pages, by topic. Every function takes a console and finds its way by words."""
