"""Who may enter: a calling AE title from its own addresses, under our called AE title, while the disk has room."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Final

from dicom_node.receive import statuses
from dicom_node.settings import UNKNOWN_ISSUER, Peer

if TYPE_CHECKING:
    from dicom_node.receive.files import InstanceFiles
    from dicom_node.settings import Dimse, Settings

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

    def peer(self, calling_ae_title: str) -> Peer | None:
        """Return the peer of this title: a configured one, or an archive that comes because we asked it something.

        Raises:
            OSError: if the archive's host name cannot be resolved.
        """
        if calling_ae_title not in self._peers:
            for pacs in self._expected:
                if pacs.dimse is not None and pacs.dimse.ae_title == calling_ae_title:
                    self._peers[calling_ae_title] = _archive(pacs.dimse, pacs.default_issuer)
        return self._peers.get(calling_ae_title)

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
                self._only_mover = _archive(pacs.dimse, pacs.default_issuer)
            known = self._only_mover is not None and self._only_mover.allows(address)
        except (OSError, ValueError):  # its host has no address now: what comes is kept as sent by somebody
            return None
        return pacs.name if known else None

    def rejection(self, calling: str, called: str, address: str) -> statuses.Rejection | None:
        """Return why an association must be refused, None if it may be accepted."""
        if called != self._settings.node.ae_title:
            return statuses.UNKNOWN_CALLED_AE
        peer = self.peer(calling)
        if peer is None and not self._settings.receive.allow_unknown_peers:
            return statuses.UNKNOWN_CALLING_AE
        if peer is not None and not peer.allows(address):
            return statuses.WRONG_ADDRESS
        if self._files.free_gb() < self._settings.receive.min_free_disk_gb:
            return statuses.DISK_LOW
        return None


def _archive(archive: Dimse, default_issuer: str | None) -> Peer:
    """Return an archive as a peer: whatever its host name resolves to today, it may call from."""
    addresses = sorted({str(each[4][0]) for each in socket.getaddrinfo(archive.host, None)})
    return Peer(ae_title=archive.ae_title, hosts=tuple(addresses), default_issuer=default_issuer or UNKNOWN_ISSUER)
