"""The addresses of this floor: the pages that bring all three together, and what checks and warns."""

from django.urls import URLPattern, URLResolver, path

from qa.views import audience, catalog, home, live, people, sample, search, setup, setup_steps, sign_offs, spot_check

app_name = "qa"
urlpatterns: list[URLPattern | URLResolver] = [
    path("", home.home, name="home"),
    path("hide-tour/", home.hide_tour, name="hide-tour"),
    path("search/", search.search, name="search"),
    path("audiences/", catalog.catalog, name="catalog"),
    path("audiences/new/", setup.new, name="new-audience"),  # before the audiences' own: no key is "new"
    path("audiences/<slug:key>/setup/", setup.of_audience, name="setup"),
    path("audiences/<slug:key>/pair/", setup.pair, name="pair"),
    path("setup-steps/", setup.setups, name="setups"),
    path("setup-steps/connect/<str:token>/", setup.engineer, name="engineer"),
    path("setup-steps/<int:pk>/discard/", setup.discard, name="discard-setup"),
    path("setup-steps/<int:pk>/<slug:name>/", setup_steps.step, name="setup-step"),
    path("audiences/<slug:key>/", audience.audience, name="audience"),
    path("audiences/<slug:key>/count/", audience.count, name="count"),
    path("audiences/<slug:key>/qa/", spot_check.spot_checks, name="spot-checks"),
    path("audiences/<slug:key>/qa/draw/", spot_check.draw, name="draw-spot-check"),
    path("audiences/<slug:key>/qa/<int:pk>/", spot_check.spot_check_, name="spot-check"),
    path("audiences/<slug:key>/qa/<int:pk>/sign/", spot_check.sign, name="sign-spot-check"),
    path("audiences/<slug:key>/qa/<int:pk>/people/<int:person>/", spot_check.note, name="note-spot-check"),
    path("people/<int:profile_no>/platforms/", people.platforms, name="person-platforms"),
    path("people/<int:profile_no>/buy/", sample.buy, name="make-buy"),
    path("people/<int:profile_no>/story/", sample.before, name="story-before"),
    path("people/<int:profile_no>/story/<int:pk>/", sample.story, name="story"),
    path("audiences/<slug:key>/sign-offs/", sign_offs.sign_offs, name="panel-sign-offs"),
    path("healthz", live.live, name="live"),
]
