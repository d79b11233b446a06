"""Published versions and the audit trail cannot be changed any more, whoever writes."""

from django.db import migrations

from audiences.models import frozen


def install(apps, schema_editor):
    frozen.install(schema_editor.connection)


def remove(apps, schema_editor):
    frozen.remove(schema_editor.connection)


class Migration(migrations.Migration):
    dependencies = [("audiences", "0002_dashboard")]
    operations = [migrations.RunPython(install, remove)]
