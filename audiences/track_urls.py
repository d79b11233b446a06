"""The addresses of the Track API, as Customer.io's clients call them."""

from django.urls import path

from audiences.views import track

urlpatterns = [
    path("api/v1/accounts/region", track.region),
    path("api/v1/customers/<path:identifier>/events", track.customer_event),
    path("api/v1/customers/<path:identifier>/suppress", track.suppress),
    path("api/v1/customers/<path:identifier>/unsuppress", track.unsuppress),
    path("api/v1/customers/<path:identifier>/devices", track.devices),
    path("api/v1/customers/<path:identifier>/devices/<path:device>", track.device),
    path("api/v1/customers/<path:identifier>", track.customer),
    path("api/v1/events", track.anonymous_event),
    path("api/v1/merge_customers", track.merge),
    path("api/v1/segments/<int:segment>/add_customers", track.add_customers),
    path("api/v1/segments/<int:segment>/remove_customers", track.remove_customers),
    path("api/v2/entity", track.entity),
    path("api/v2/batch", track.batch),
]
