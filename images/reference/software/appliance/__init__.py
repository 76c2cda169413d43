"""The software inside the reference appliance: two web consoles, an API, certificates, addresses, updates, backups, power.

It runs from Debian 12's own packages (Flask 2.2, cryptography 38, gunicorn 20.1, nginx 1.22) and from newer ones, and imports nothing
of the project that tests with it. ``python -m appliance serve --root FOLDER`` starts a box.
"""
