"""Faults that come with the pictures: poison, odd files, the killer, and ids sent twice."""

import time

import anyio

from roadstream.bench.faults.campaign import ANSWER_WITHIN, Campaign
from roadstream.bench.faults.chaos.children import until
from roadstream.bench.faults.chaos.pictures import Catalogue
from roadstream.bench.faults.plan import Fault

DOSE = 3
KILLER_WITHIN = 60.0


async def poison(campaign: Campaign, fault: Fault, injected: anyio.Event) -> None:
    """Send a few pictures of one kind of poison among the others."""
    ids = campaign.load.add_kinds([fault.point] * (1 + fault.target % DOSE))
    injected.set()
    await campaign.answered(fault, ids)


async def odd_files(campaign: Campaign, fault: Fault, injected: anyio.Event) -> None:
    """Send odd files; over a campaign, each of them."""
    odd = campaign.load.catalogue.odd
    first = fault.number * DOSE
    ids = campaign.load.add_kinds([odd[i % len(odd)] for i in range(first, first + DOSE)])
    injected.set()
    await campaign.answered(fault, ids)


async def killer_picture(campaign: Campaign, fault: Fault, injected: anyio.Event) -> None:
    """Send a picture that kills whoever judges it, until it is found out."""
    children = campaign.children
    children.excuse(lambda duty: duty.role == "worker")
    try:
        (image_id,) = campaign.load.add_kinds(["kills-process"])
        began = time.monotonic()
        injected.set()
        if not await until(lambda: image_id in campaign.answers.verdicts, KILLER_WITHIN):
            campaign.note("slow answer", image_id, f"none within {KILLER_WITHIN:g} s")
        campaign.figure("killer picture to its answer", time.monotonic() - began)
        await campaign.settled(ANSWER_WITHIN)
    finally:
        children.excuse(None)


async def memory(campaign: Campaign, fault: Fault, injected: anyio.Event) -> None:
    """Let no batch above a size fit into a worker's memory, for a while."""
    name = await campaign.take(fault, "worker")
    campaign.panel.give(name, f"memory {fault.point}")
    injected.set()
    await anyio.sleep(fault.seconds)
    campaign.panel.clear(name)
    campaign.release(name)
    await campaign.settled(ANSWER_WITHIN)


async def same_id_same_bytes(campaign: Campaign, fault: Fault, injected: anyio.Event) -> None:
    """Send images, and the same ones again: they have one answer each."""
    ids = campaign.load.add_ordinary(1 + fault.target % 20)
    injected.set()
    await anyio.sleep(fault.seconds)
    campaign.load.add([campaign.load.catalogue.image(image_id) for image_id in ids])
    await campaign.answered(fault, ids)


async def same_id_other_bytes(campaign: Campaign, fault: Fault, injected: anyio.Event) -> None:
    """Send another picture under the id of one that was sent: it is refused, and said so."""
    catalogue: Catalogue = campaign.load.catalogue
    (image_id,) = campaign.load.add_ordinary(1)
    injected.set()
    await anyio.sleep(fault.seconds)
    other = campaign.answers.others[image_id] = "s32" if "-s224" in image_id else "s224"
    campaign.load.add([catalogue.image(image_id, data=catalogue.data(other))])
    await campaign.answered(fault, [image_id])
    if not await until(lambda: image_id in campaign.answers.refused, ANSWER_WITHIN):
        campaign.note("not refused", image_id, "a second picture under its id went unmentioned")
