from django.db import migrations, models
from django.db.models import F


def part_names(apps, schema_editor):
    """Until now one column held both: what a person chose, and what the platform was told."""
    rows = apps.get_model("destinations", "Mapping").objects.exclude(remote_name="")
    rows.filter(remote_id="").update(own_name=F("remote_name"), remote_name="")
    chosen = rows.filter(adopted=False).exclude(remote_name=F("audience__name")).exclude(remote_id="")
    for row in chosen.select_related("audience"):
        row.own_name = row.remote_name
        row.save(update_fields=["own_name"])


class Migration(migrations.Migration):

    dependencies = [
        ('destinations', '0002_dashboard'),
    ]

    operations = [
        migrations.AddField(
            model_name='mapping',
            name='own_name',
            field=models.CharField(blank=True, help_text='Chosen by a person for this connection; empty: as the audience is named', max_length=400),
        ),
        migrations.AlterField(
            model_name='mapping',
            name='remote_name',
            field=models.CharField(blank=True, help_text='Its name there, as last told or seen', max_length=400),
        ),
        migrations.RunPython(part_names, migrations.RunPython.noop, elidable=True),
    ]
