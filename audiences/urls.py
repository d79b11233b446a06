"""The addresses of this floor."""

from django.urls import URLPattern, URLResolver, include, path

from audiences.views import imports, jobs, people, session, settings

app_name = "audiences"
urlpatterns: list[URLPattern | URLResolver] = [
    path("", include("audiences.track_urls")),
    path("sign-in/", session.sign_in, name="sign-in"),
    path("sign-out/", session.sign_out, name="sign-out"),
    path("setup/", session.setup, name="setup"),
    path("set-password/<str:token>/", session.set_password, name="set-password"),
    path("account/", session.account, name="account"),
    path("account/password/", session.new_password, name="new-password"),
    path("theme/", session.theme, name="theme"),
    path("people/", people.people, name="people"),
    path("people/<int:profile_no>/audiences/<slug:key>/", people.standing, name="standing"),
    path("people/<int:profile_no>/", people.person, name="person"),
    path("people/<int:profile_no>/reveal/", people.reveal, name="reveal"),
    path("imports/", imports.imports, name="imports"),
    path("imports/new/", imports.upload, name="upload"),
    path("imports/new/<str:token>/", imports.columns, name="columns"),
    path("imports/new/<str:token>/discard/", imports.discard, name="discard"),
    path("imports/refused/", imports.refused, name="refused"),
    path("imports/refused/export/", imports.export_refused, name="export-refused"),
    path("imports/<int:pk>/", imports.import_file, name="import"),
    path("imports/<int:pk>/cancel/", imports.cancel, name="cancel-import"),
    path("settings/", settings.workspace_page, name="settings"),
    path("settings/consent/", settings.consent, name="consent"),
    path("settings/users/", settings.users_page, name="users"),
    path("settings/users/<int:pk>/", settings.user, name="user"),
    path("settings/keys/", settings.keys, name="keys"),
    path("settings/keys/<int:pk>/revoke/", settings.revoke_key, name="revoke-key"),
    path("working/", jobs.working, name="working"),
    path("settings/jobs/", jobs.jobs, name="jobs"),
]
