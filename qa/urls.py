"""The addresses of this floor: the pages that bring all three together, and what checks and warns."""

from django.urls import URLPattern, URLResolver, path

from qa.views import audience, catalog, home, live, setup

app_name = "qa"
urlpatterns: list[URLPattern | URLResolver] = [
    path("", home.home, name="home"),
    path("audiences/", catalog.catalog, name="catalog"),
    path("audiences/new/", setup.new, name="new-audience"),  # before the audiences' own: no key is "new"
    path("audiences/<slug:key>/setup/", setup.setup, name="setup"),
    path("audiences/<slug:key>/pair/", setup.pair, name="pair"),
    path("setup-steps/", setup.setups, name="setups"),
    path("audiences/<slug:key>/", audience.audience, name="audience"),
    path("audiences/<slug:key>/count/", audience.count, name="count"),
    path("healthz", live.live, name="live"),
]
