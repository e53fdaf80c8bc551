"""Types and points at a seat through the library of a real viewer (gtk-vnc's), over a Unix socket.

Prints `open`, then does what each line of standard input says:
    key KEYSYM SCANCODE DOWN        point X Y BUTTONS
"""

import os
import signal
import socket
import sys

import gi

gi.require_version("GVnc", "1.0")
from gi.repository import GLib, GVnc


NO_AUTHENTICATION = 1


def main():
    path = sys.argv[1]
    signal.alarm(60)
    ends = socket.socket(socket.AF_UNIX)
    ends.connect(path)
    viewer = GVnc.Connection()
    loop = GLib.MainLoop()

    def choose(connection, _kinds):
        # `GVnc.ConnectionAuth` has numbers that the binding cannot make.
        connection.set_auth_type(NO_AUTHENTICATION)

    def initialized(connection):
        print("open", flush=True)
        channel = GLib.IOChannel.unix_new(0)
        GLib.io_add_watch(channel, GLib.PRIORITY_DEFAULT, GLib.IOCondition.IN | GLib.IOCondition.HUP, order)

    def order(_channel, _condition):
        # Not by `sys.stdin`, which keeps lines that the loop then does not hear of.
        orders = os.read(0, 4096).decode()
        if not orders:
            loop.quit()
            return False
        for words in map(str.split, orders.splitlines()):
            obey(words[0], [int(number, 0) for number in words[1:]])
        return True

    def obey(kind, numbers):
        if kind == "key":
            keysym, scancode, down = numbers
            viewer.key_event(bool(down), keysym, scancode)
        else:
            x, y, buttons = numbers
            viewer.pointer_event(buttons, x, y)

    viewer.connect("vnc-auth-choose-type", choose)
    viewer.connect("vnc-initialized", initialized)
    viewer.connect("vnc-error", lambda _, text: print("error", text, flush=True))
    viewer.connect("vnc-disconnected", lambda _: loop.quit())
    viewer.open_fd(ends.detach())
    loop.run()
    # The library's own goodbye may wait for ever where the machine is busy; the socket ends in any case.
    os._exit(0)


main()
