"""The addresses of this floor: the pages that bring all three together, and what checks and warns."""

from django.urls import URLPattern, URLResolver, path

from qa.views import audience, catalog, home, live

app_name = "qa"
urlpatterns: list[URLPattern | URLResolver] = [
    path("", home.home, name="home"),
    path("audiences/", catalog.catalog, name="catalog"),
    path("audiences/<slug:key>/", audience.audience, name="audience"),
    path("audiences/<slug:key>/count/", audience.count, name="count"),
    path("healthz", live.live, name="live"),
]
