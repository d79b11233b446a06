"""Drafts keep what is unfinished and the steps before. The engine may have rebuilt the table: what keeps published versions is put back."""

import django.db.models.deletion
from django.conf import settings
from django.db import migrations, models

from audiences.models import frozen


def install(apps, schema_editor):
    frozen.install(schema_editor.connection)


class Migration(migrations.Migration):
    dependencies = [
        ("audiences", "0003_frozen_history"),
    ]

    operations = [
        migrations.AddField(
            model_name="segmentversion",
            name="outline",
            field=models.JSONField(
                help_text="Of a draft: the tree as edited, with what is not finished; null: it says what segment says",
                null=True,
            ),
        ),
        migrations.AddField(
            model_name="segmentversion",
            name="revision",
            field=models.PositiveIntegerField(default=0, help_text="Of a draft: raised by every save, undo and redo"),
        ),
        migrations.AddField(
            model_name="segmentversion",
            name="step",
            field=models.PositiveIntegerField(default=0, help_text="Of a draft: the DraftStep that is shown"),
        ),
        migrations.CreateModel(
            name="DraftStep",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("number", models.PositiveIntegerField()),
                ("outline", models.JSONField()),
                ("created_at", models.DateTimeField(auto_now_add=True)),
                (
                    "author",
                    models.ForeignKey(
                        null=True,
                        on_delete=django.db.models.deletion.SET_NULL,
                        related_name="+",
                        to=settings.AUTH_USER_MODEL,
                    ),
                ),
                (
                    "version",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE, related_name="steps", to="audiences.segmentversion"
                    ),
                ),
            ],
            options={
                "constraints": [models.UniqueConstraint(fields=("version", "number"), name="draft_step_once")],
            },
        ),
        migrations.RunPython(install, migrations.RunPython.noop),
    ]
