"""The addresses of this floor."""

from django.urls import URLPattern, URLResolver, path

from destinations.views import archiving, connections, destinations, names, panels, rehearsal, renaming, runs

app_name = "destinations"
urlpatterns: list[URLPattern | URLResolver] = [
    path("audiences/<slug:key>/connections/", panels.connections, name="connections"),
    path("audiences/<slug:key>/archive/", archiving.archive, name="archive"),
    path("audiences/<slug:key>/sync/", connections.sync_audience, name="sync-audience"),
    path("panels/names/", names.cells, name="remote-name-cells"),
    path("settings/naming/platforms/", names.remote_names_page, name="remote-names"),
    path("settings/naming/rename/", renaming.rename_names, name="rename-names"),
    path("settings/naming/rename/<int:pk>/undo/", renaming.undo_rename, name="undo-rename"),
    path("destinations/", destinations.destinations, name="destinations"),
    path("destinations/new/", destinations.choose, name="choose"),
    path("destinations/new/<slug:kind>/", destinations.connect, name="connect"),
    path("destinations/<slug:key>/", destinations.destination, name="destination"),
    path("destinations/<slug:key>/check/", destinations.check, name="check"),
    path("destinations/<slug:key>/edit/", destinations.edit, name="edit-destination"),
    path("connections/new/", connections.new, name="new-connection"),
    path("connections/<int:pk>/", connections.connection, name="connection"),
    path("connections/<int:pk>/edit/", connections.edit, name="edit-connection"),
    path("connections/<int:pk>/rehearsal/", rehearsal.rehearsal, name="rehearsal"),
    path("connections/<int:pk>/rehearse/", connections.rehearse, name="rehearse"),
    path("connections/<int:pk>/sync/", connections.sync, name="sync"),
    path("connections/<int:pk>/retry/", connections.retry, name="retry"),
    path("connections/<int:pk>/do/<slug:name>/", connections.deed, name="deed"),
    path("holds/<int:pk>/lift/", connections.lift, name="lift"),
    path("runs/", runs.runs, name="runs"),
    path("runs/<int:pk>/", runs.run, name="run"),
    path("runs/<int:pk>/cancel/", runs.cancel, name="cancel-run"),
    path("runs/<int:pk>/approve/", runs.approve, name="approve-run"),
]
