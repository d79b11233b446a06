"""Which floor answers which address."""

from django.urls import include, path

urlpatterns = [
    path("", include("audiences.urls")),
    path("", include("destinations.urls")),
    path("", include("qa.urls")),
]
