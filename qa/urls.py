"""The addresses of this floor."""

from django.urls import URLPattern, URLResolver, path

from qa import views

app_name = "qa"
urlpatterns: list[URLPattern | URLResolver] = [
    path("healthz", views.live, name="live"),
]
