"""The Django backend in a site of one app. It needs Django 6, so Python 3.12."""
