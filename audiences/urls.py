"""The addresses of this floor."""

from django.urls import URLPattern, URLResolver

app_name = "audiences"
urlpatterns: list[URLPattern | URLResolver] = []
