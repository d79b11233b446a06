"""Makes the sample shop's people and events as Arrow tables: the same for the same seed and end. Nothing is written here.

People who never existed, at reserved domains (RFC 2606) and, where a country has them, numbers kept for fiction.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

PEOPLE, EVENTS, DAYS, SEED = 50_000, 1_000_000, 365, 20_261

DAY = 86_400_000_000  # µs
FIRST = [
    "Ada",
    "Ben",
    "Cleo",
    "Dina",
    "Emil",
    "Fay",
    "Gus",
    "Hana",
    "Ivo",
    "June",
    "Kai",
    "Lena",
    "Milo",
    "Nora",
    "Otis",
    "Pia",
    "Quinn",
    "Rosa",
    "Sami",
    "Tess",
    "Uma",
    "Vito",
    "Wren",
    "Xena",
    "Yara",
    "Zeno",
    "José",
    "Zoë",
    "Łukasz",
    "Anaïs",
]
LAST = [
    "Abel",
    "Bauer",
    "Costa",
    "Dubois",
    "Evans",
    "Fischer",
    "Garcia",
    "Huber",
    "Ivers",
    "Jansen",
    "Klein",
    "Lopez",
    "Meyer",
    "Novak",
    "Olsen",
    "Peters",
    "Quist",
    "Rossi",
    "Schmidt",
    "Tanner",
    "Ulrich",
    "Vogel",
    "Weber",
    "Young",
    "Zeller",
    "O'Neil",
    "Müller",
    "Núñez",
]
COUNTRIES = ["DE", "FR", "GB", "US", "AT", "NL", "ES", "IT"]
COUNTRY_SHARE = [0.34, 0.16, 0.15, 0.12, 0.08, 0.06, 0.05, 0.04]
PLATFORMS = ["ios", "android", "web"]
CATEGORIES = ["shoes", "jackets", "shirts", "trousers", "bags", "accessories", "outlet"]
CATEGORY_SHARE = [0.26, 0.14, 0.2, 0.13, 0.09, 0.1, 0.08]
# National forms, as people type them; {n} is replaced by seven digits.
PHONES = {
    "DE": "0151 {n}1",
    "FR": "06 39 98 {n}",
    "GB": "07700 900{n}",
    "US": "(201) 555-01{n}",
    "AT": "0664 {n}",
    "NL": "06 1{n}",
    "ES": "61{n}",
    "IT": "312 {n}",
}
PHONE_DIGITS = {"DE": 7, "FR": 4, "GB": 3, "US": 2, "AT": 7, "NL": 7, "ES": 7, "IT": 7}

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Shop:
    profiles: pa.Table
    events: pa.Table


def make(end_us: int, *, people: int = PEOPLE, events: int = EVENTS, seed: int = SEED) -> Shop:
    """The shop's last year up to `end_us` (µs since 1970 UTC)."""
    rng = np.random.default_rng(seed)
    start_us = end_us - DAYS * DAY
    joined = _joined(rng, people, start_us, end_us)
    platform = rng.choice(3, people, p=[0.34, 0.26, 0.40])
    profiles = _profiles(rng, joined, platform, end_us)
    return Shop(profiles, _events(rng, joined, platform, start_us, end_us, events))


def _joined(rng: np.random.Generator, people: int, start_us: int, end_us: int) -> Ints:
    """A third were customers before the year began; the others came at a growing pace."""
    before = rng.random(people) < 0.34
    old = start_us - rng.integers(DAY, 900 * DAY, people)
    new = start_us + (np.sqrt(rng.random(people)) * (end_us - start_us - DAY)).astype(np.int64)
    return np.where(before, old, new)


def _profiles(rng: np.random.Generator, joined: Ints, platform: Ints, end_us: int) -> pa.Table:
    people = len(joined)
    first = np.array(FIRST)[rng.integers(0, len(FIRST), people)]
    last = np.array(LAST)[rng.integers(0, len(LAST), people)]
    country = np.array(COUNTRIES)[rng.choice(len(COUNTRIES), people, p=COUNTRY_SHARE)]
    number = np.arange(people)
    plain = [_ascii(f"{f}.{el}") for f, el in zip(first, last, strict=True)]
    email: list[str | None] = [
        f"{name}{n}@{'example.com' if n % 3 else 'example.org'}" for name, n in zip(plain, number, strict=True)
    ]
    phone: list[str | None] = [
        PHONES[c].format(n=f"{n:07d}"[-PHONE_DIGITS[c] :])
        for c, n in zip(country, rng.integers(0, 10_000_000, people), strict=True)
    ]
    dice = rng.random((people, 6))
    for n in range(people):
        guest, odd, shared, no_phone, bad_phone, _ = dice[n]
        if guest < 0.17:
            email[n] = None  # bought or browsed as a guest
        elif odd < 0.010:
            email[n] = str(email[n]).replace("@", "@@" if n % 2 else " at ")
        elif odd < 0.040:
            email[n] = f" {str(email[n]).upper()} "
        elif shared < 0.015 and n:
            email[n] = email[n - 1]  # a household with one mailbox
        if no_phone < 0.45:
            phone[n] = None
        elif bad_phone < 0.012:
            phone[n] = "12" if n % 2 else "call me"
    said = rng.random(people)
    granted = np.where(said < 0.68, "granted", np.where(said < 0.78, "denied", "")).astype(object)
    granted[granted == ""] = None
    tier = np.array(["basic", "silver", "gold"])[rng.choice(3, people, p=[0.78, 0.17, 0.05])]
    return pa.table(
        {
            "customer_id": [f"{n:06d}" for n in number],
            "email": pa.array(email, pa.string()),
            "phone": pa.array(phone, pa.string()),
            "first_name": first,
            "last_name": last,
            "country": country,
            "zip": [f"{z:05d}" for z in rng.integers(1000, 99999, people)],
            "created_at": pc.strftime(pa.array(joined, pa.timestamp("us", tz="UTC")), format="%Y-%m-%dT%H:%M:%SZ"),
            "platform": np.array(PLATFORMS)[platform],
            "loyalty_tier": tier,
            "newsletter": rng.random(people) < 0.55,
            "consent_ad_user_data": pa.array(granted, pa.string()),
            "consent_ad_personalization": pa.array(granted, pa.string()),
        }
    )


def _ascii(name: str) -> str:
    plain = name.translate(str.maketrans("éëłïüúñŁ", "eeliuunL"))
    return "".join(c for c in plain.lower() if c.isascii() and (c.isalnum() or c == "."))


def _events(
    rng: np.random.Generator, joined: Ints, platform: Ints, start_us: int, end_us: int, wanted: int
) -> pa.Table:
    """Visits, each a funnel: pages, products, perhaps a cart, a checkout, an order."""
    visits = int(wanted / 4.56)
    keen = rng.gamma(0.6, 1.0, len(joined))  # a few come often, most rarely
    who = rng.choice(len(joined), visits, p=keen / keen.sum())
    when = _when(rng, visits, start_us, end_us)
    # Whoever had not joined by then came between joining and now; most people's interest also fades with time.
    late = when < joined[who]
    since = np.maximum(joined[who[late]], start_us)
    when[late] = since + (rng.beta(0.7, 2.5, late.sum()) * (end_us - since)).astype(np.int64)
    logged_in = rng.random(visits) < np.where(platform[who] == 2, 0.45, 0.8)
    category = rng.choice(len(CATEGORIES), visits, p=CATEGORY_SHARE)

    products = 1 + rng.poisson(1.5, visits)
    cart = rng.random(visits) < 0.30
    checkout = cart & (rng.random(visits) < 0.62)
    order = checkout & (rng.random(visits) < 0.66)
    mail = rng.random(visits) < 0.22
    search = rng.random(visits) < 0.3

    price = np.round(np.exp(rng.normal(3.7, 0.55, visits)), 2)
    items = 1 + rng.poisson(0.5, visits)
    minute = 60_000_000
    parts: list[tuple[str, Ints, Ints]] = [
        ("email_opened", np.flatnonzero(mail), np.full(mail.sum(), -3 * minute)),
        ("page_viewed", np.arange(visits), np.zeros(visits, np.int64)),
        ("searched", np.flatnonzero(search), np.full(search.sum(), minute)),
        ("product_viewed", np.repeat(np.arange(visits), products), _after(rng, products.sum(), 1, 8)),
        ("add_to_cart", np.flatnonzero(cart), _after(rng, cart.sum(), 9, 14)),
        # The iOS app has not sent this one since its last release: the kind of gap a rule must not lean on.
        (
            "checkout_started",
            np.flatnonzero(checkout & (platform[who] != 0)),
            _after(rng, (checkout & (platform[who] != 0)).sum(), 15, 18),
        ),
        ("purchase", np.flatnonzero(order), _after(rng, order.sum(), 19, 30)),
    ]
    visit = np.concatenate([index for _, index, _ in parts])
    time = when[visit] + np.concatenate([offset for _, _, offset in parts])
    name = np.repeat(np.arange(len(parts)), [len(index) for _, index, _ in parts])
    keep = (time <= end_us) & (time >= start_us)
    visit, time, name = visit[keep], time[keep], name[keep]
    order_by = np.argsort(time, kind="stable")
    visit, time, name = visit[order_by], time[order_by], name[order_by]

    names = np.array([part[0] for part in parts])
    is_purchase, of_product = (
        names[name] == "purchase",
        np.isin(names[name], ["product_viewed", "add_to_cart", "purchase"]),
    )
    worth = np.round(price[visit] * np.where(is_purchase, items[visit], 1), 2)
    return pa.table(
        {
            "customer_id": pc.utf8_lpad(pa.array(who[visit]).cast(pa.string()), 6, padding="0"),
            "event": pa.array(names)[0:0] if not len(name) else pa.array(names).take(pa.array(name)),
            "time": pa.array(time, pa.timestamp("us", tz="UTC")),
            "platform": pa.array(PLATFORMS).take(pa.array(platform[who[visit]])),
            "logged_in": pa.array(logged_in[visit]),
            "category": pa.array(CATEGORIES).take(pa.array(category[visit], mask=~of_product)),
            "value": pa.array(worth, pa.float64(), mask=~of_product),
            "currency": pa.array(["EUR"] * len(name), pa.string(), mask=~is_purchase),
            "order_id": pc.if_else(
                pa.array(is_purchase), pc.binary_join_element_wise("o", pa.array(visit).cast(pa.string()), "-"), None
            ),
        }
    )


def _after(rng: np.random.Generator, count: int, low: int, high: int) -> Ints:
    return rng.integers(low * 60_000_000, high * 60_000_000, count)


def _when(rng: np.random.Generator, count: int, start_us: int, end_us: int) -> Ints:
    """Moments over the year: busier evenings and weekends, a peak before Christmas and in the summer sale, growth throughout."""
    days = (end_us - start_us) // DAY
    day_us = start_us + np.arange(days) * DAY
    weekday = ((day_us // DAY) + 3) % 7  # 1970-01-01 was a Thursday
    of_year = ((day_us // DAY) % 365.25) / 365.25
    weight = (
        1
        + 0.35 * np.isin(weekday, [5, 6])
        + 1.1 * np.exp(-(((of_year - 0.92) / 0.05) ** 2))
        + 0.5 * np.exp(-(((of_year - 0.53) / 0.03) ** 2))
    )
    weight = weight * np.linspace(0.7, 1.3, days)
    day = rng.choice(days, count, p=weight / weight.sum())
    hours = np.array([1, 1, 1, 1, 1, 2, 3, 5, 6, 6, 6, 7, 8, 7, 6, 6, 7, 8, 10, 12, 13, 10, 6, 3], float)
    hour = rng.choice(24, count, p=hours / hours.sum())
    return day_us[day] + hour * (DAY // 24) + rng.integers(0, DAY // 24, count)
