"""The addresses of this floor."""

from django.urls import URLPattern, URLResolver, path

from destinations.views import connections, destinations, panels, runs

app_name = "destinations"
urlpatterns: list[URLPattern | URLResolver] = [
    path("audiences/<slug:key>/connections/", panels.connections, name="connections"),
    path("panels/catalog/", panels.catalog, name="panel-catalog"),
    path("destinations/", destinations.destinations, name="destinations"),
    path("destinations/<slug:key>/", destinations.destination, name="destination"),
    path("connections/<int:pk>/", connections.connection, name="connection"),
    path("runs/", runs.runs, name="runs"),
    path("runs/<int:pk>/", runs.run, name="run"),
]
