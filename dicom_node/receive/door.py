"""Who may enter: a calling AE title from its own addresses, under our called AE title, while the disk has room.

Where certificates are named, a title is its certificate's owner's: nobody else may claim it, and that certificate may
claim no other title.
"""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Any, Final

from dicom_node.receive import statuses
from dicom_node.settings import UNKNOWN_ISSUER, Peer
from dicom_node.tls import PLAIN

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dicom_node.receive.files import InstanceFiles
    from dicom_node.settings import Dimse, Pacs, Right, Settings
    from dicom_node.tls import Link, Shown

STRANGERS_RIGHTS: Final[frozenset[Right]] = frozenset({"store", "echo"})  # where unknown peers are let in
DOCUMENTS: Final = "1.2.840.10008.5.1.4.1.1.88."  # first part of the SR and KO classes, PS3.4 B.5


class Door:
    """Who may enter: called AE title, calling AE title with its addresses, and room on the disk.

    An archive that we ask to move older studies to us, or for storage commitment, may enter too, without an entry of
    its own among the peers.
    """

    def __init__(self, settings: Settings, files: InstanceFiles) -> None:
        self._settings = settings
        self._files = files
        self._movers = [pacs for pacs in settings.pacs if pacs.dimse is not None and "c-move" in pacs.priors.methods]
        self._only_mover: Peer | None = None  # resolved when first needed
        self._expected = [
            pacs for pacs in settings.pacs if pacs.dimse is not None and pacs.storage_commitment.enabled
        ] + self._movers
        self._peers = {peer.ae_title: peer for peer in settings.receive.peers}
        committing = [pacs.dimse for pacs in settings.pacs if pacs.storage_commitment.enabled]
        self._committing = {archive.ae_title for archive in committing if archive is not None}
        self._owners = _owners(settings, self._expected)

    def peer(self, calling_ae_title: str) -> Peer | None:
        """Return the peer of this title: a configured one, or an archive that comes because we asked it something.

        Raises:
            OSError: if the archive's host name cannot be resolved.
        """
        if calling_ae_title not in self._peers:
            for pacs in self._expected:
                if pacs.dimse is not None and pacs.dimse.ae_title == calling_ae_title:
                    self._peers[calling_ae_title] = self._archive(pacs.dimse, pacs.default_issuer)
        return self._peers.get(calling_ae_title)

    def knows(self, address: str) -> bool:
        """Say whether any peer may call from this address, as far as it is known without asking for host names."""
        return self._settings.receive.allow_unknown_peers or any(
            peer.allows(address) for peer in tuple(self._peers.values())
        )

    def named_archive(self, calling_ae_title: str, move_originator: str) -> str | None:
        """Return the archive that sends under its own title because we asked it to, None if the sender came by itself.

        Source: PS3.7 9.1.1 (Move Originator Application Entity Title).
        """
        if move_originator != self._settings.node.ae_title:
            return None
        titles = {pacs.dimse.ae_title: pacs.name for pacs in self._movers if pacs.dimse is not None}
        return titles.get(calling_ae_title)

    def unnamed_archive(self, move_originator: str, *, address: str, sop_class_uid: str) -> str | None:
        """Return the archive that a sender under another title may be: the only one, from its own address.

        Anybody can say that we asked for what is sent: whether something is fetched from the archive at this moment is
        left to be seen, and a report or a note is never taken so, for it would be believed.
        """
        if move_originator != self._settings.node.ae_title or len(self._movers) != 1:
            return None
        if sop_class_uid.startswith(DOCUMENTS):
            return None
        (pacs,) = self._movers
        try:
            if self._only_mover is None and pacs.dimse is not None:
                self._only_mover = self._archive(pacs.dimse, pacs.default_issuer)
            known = self._only_mover is not None and self._only_mover.allows(address)
        except (OSError, ValueError):  # its host has no address now: what comes is kept as sent by somebody
            return None
        return pacs.name if known else None

    def rejection(self, calling: str, called: str, address: str, link: Link = PLAIN) -> statuses.Rejection | None:
        """Return why an association must be refused, None if it may be accepted.

        Raises:
            OSError: if an archive's host name cannot be resolved.
        """
        if called != self._settings.node.ae_title:
            return statuses.UNKNOWN_CALLED_AE
        peer = self.peer(calling)
        if peer is None and not self._settings.receive.allow_unknown_peers:
            return statuses.UNKNOWN_CALLING_AE
        if peer is not None and not peer.allows(address):
            return statuses.WRONG_ADDRESS
        return self._rejection_of_link(calling, peer, link) or self._rejection_for_now()

    def _rejection_of_link(self, calling: str, peer: Peer | None, link: Link) -> statuses.Rejection | None:
        if peer is not None and peer.tls == "required" and not link.secure:
            return statuses.WITHOUT_TLS
        return None if self._may_claim(calling, link.shown) else statuses.WRONG_CERTIFICATE

    def _rejection_for_now(self) -> statuses.Rejection | None:
        if self._files.free_gb() < self._settings.receive.min_free_disk_gb:
            return statuses.DISK_LOW
        return None

    def rights(self, calling: str) -> frozenset[Right]:
        """Return what a caller may ask for; an archive that was asked for commitment may answer."""
        peer = self.peer(calling)
        rights = STRANGERS_RIGHTS if peer is None else frozenset(peer.rights)
        return rights | {"commitment"} if calling in self._committing else rights

    def limit(self, calling: str) -> int | None:
        """Return how many associations a caller may have at the same time, None if only the common limit holds."""
        peer = self.peer(calling)
        return peer.max_associations if peer is not None else None

    def _may_claim(self, calling: str, shown: Shown | None) -> bool:
        """Say whether a certificate, or none, fits an AE title."""
        expected = self._owners.get(calling)
        if expected is not None:
            return shown is not None and shown.is_known_as(expected)
        return shown is None or not any(
            identity is not None and shown.is_known_as(identity) for identity in self._owners.values()
        )

    def _archive(self, archive: Dimse, default_issuer: str | None) -> Peer:
        """Return an archive as a peer: whatever its host name resolves to today, it may call from."""
        addresses = sorted({str(each[4][0]) for each in socket.getaddrinfo(archive.host, None)})
        return Peer(
            ae_title=archive.ae_title,
            hosts=tuple(addresses),
            default_issuer=default_issuer or UNKNOWN_ISSUER,
            **_demands(archive, self._settings),
        )


def _owners(settings: Settings, archives: Sequence[Pacs]) -> dict[str, str | None]:
    """Return whose certificate has to come with an AE title, None where any may."""
    owners = {
        pacs.dimse.ae_title: _demands(pacs.dimse, settings)["certificate_identity"]
        for pacs in archives
        if pacs.dimse is not None
    }
    return owners | {peer.ae_title: peer.certificate_identity for peer in settings.receive.peers}


def _demands(archive: Dimse, settings: Settings) -> dict[str, Any]:
    """Return how an archive has to come: over TLS if we call it so, with the certificate that it shows us."""
    secure = archive.tls is not None and settings.receive.tls.enabled
    identity = archive.tls.certificate_identity if archive.tls is not None and settings.receive.tls.mutual else None
    return {"tls": "required" if secure else "optional", "certificate_identity": identity if secure else None}
