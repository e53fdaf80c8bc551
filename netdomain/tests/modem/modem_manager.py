"""What ModemManager 1.20 shows of one modem, for python-dbusmock (which has no such template of its own).

The test changes properties by `Become`, and reads which calls were made from dbusmock's log. `Refuse`
of the bearer is no property of ModemManager's: while it is true, connections are refused.
"""

import dbus
import dbus.service
import dbusmock

BUS_NAME = "org.freedesktop.ModemManager1"
MAIN_OBJ = "/org/freedesktop/ModemManager1"
MAIN_IFACE = "org.freedesktop.ModemManager1"
SYSTEM_BUS = False
IS_OBJECT_MANAGER = True

MODEM_OBJ = MAIN_OBJ + "/Modem/0"
BEARER_OBJ = MAIN_OBJ + "/Bearer/0"
MODEM = MAIN_IFACE + ".Modem"
BEARER = MAIN_IFACE + ".Bearer"

ENABLE = f"self.Become('{MODEM}', {{'State': dbus.Int32(8 if args[0] else 3)}})"

CONNECT = f"""
bearer = objects['{BEARER_OBJ}']
if bearer.props['{BEARER}']['Refuse']:
    raise dbus.exceptions.DBusException(
        'Service option not subscribed',
        name='org.freedesktop.ModemManager1.Error.MobileEquipment.GprsServiceOptionNotSubscribed')
bearer.Become('{BEARER}', {{
    'Properties': dbus.Dictionary({{'apn': args[0].get('apn', '')}}, signature='sv'),
    'Connected': True,
}})
self.Become('{MODEM}', {{
    'Bearers': dbus.Array([dbus.ObjectPath('{BEARER_OBJ}')], signature='o'),
    'State': dbus.Int32(11),
}})
ret = dbus.ObjectPath('{BEARER_OBJ}')
"""

DISCONNECT = f"""
objects['{BEARER_OBJ}'].Become('{BEARER}', {{'Connected': False}})
self.Become('{MODEM}', {{
    'Bearers': dbus.Array([], signature='o'),
    'State': dbus.Int32(8),
}})
"""


@dbus.service.method("jp.sekisho.Test", in_signature="sa{sv}", out_signature="")
def Become(self, interface, properties):
    """Sets properties of any type, which dbusmock's UpdateProperties cannot, and signals the change."""
    self.props.setdefault(interface, {}).update(properties)
    self.EmitSignal(
        dbus.PROPERTIES_IFACE,
        "PropertiesChanged",
        "sa{sv}as",
        [interface, dbus.Dictionary({}, signature="sv"), list(properties)],
    )


@dbus.service.method("jp.sekisho.Test", in_signature="u", out_signature="")
def Flood(self, count):
    """So many signals that nothing follows from."""
    for _ in range(count):
        self.EmitSignal(MODEM, "StateChanged", "iiu", [8, 8, 0])


def load(mock, parameters):
    mock.AddObject(
        MODEM_OBJ,
        MODEM,
        {
            "State": dbus.Int32(3),
            "StateFailedReason": dbus.UInt32(0),
            "UnlockRequired": dbus.UInt32(1),
            "SignalQuality": dbus.Struct((dbus.UInt32(63), True), signature="ub"),
            "Bearers": dbus.Array([], signature="o"),
            # Some of what it says beside, to be passed over.
            "Manufacturer": "Mihon",
            "Ports": dbus.Array([dbus.Struct(("eth0", dbus.UInt32(2)))], signature="(su)"),
            "SupportedModes": dbus.Array(
                [dbus.Struct((dbus.UInt32(12), dbus.UInt32(8)))], signature="(uu)"
            ),
            "UnlockRetries": dbus.Dictionary(
                {dbus.UInt32(2): dbus.UInt32(3)}, signature="uu"
            ),
        },
        [("Enable", "b", "", ENABLE)],
    )
    modem = dbusmock.get_object(MODEM_OBJ)
    modem.AddProperties(
        MODEM + ".Modem3gpp",
        {
            "RegistrationState": dbus.UInt32(1),
            "OperatorCode": "44010",
            "OperatorName": "Mihon Mobile",
        },
    )
    modem.AddMethods(
        MODEM + ".Simple",
        [("Connect", "a{sv}", "o", CONNECT), ("Disconnect", "o", "", DISCONNECT)],
    )
    mock.AddObject(
        BEARER_OBJ,
        BEARER,
        {
            "Connected": False,
            "Interface": "eth0",
            "Ip4Config": dbus.Dictionary(
                {
                    "method": dbus.UInt32(2),
                    "address": "192.168.43.77",
                    "prefix": dbus.UInt32(30),
                    "gateway": "192.168.43.1",
                    "dns1": "198.51.100.53",
                    "mtu": dbus.UInt32(1430),
                },
                signature="sv",
            ),
            "Properties": dbus.Dictionary({"apn": ""}, signature="sv"),
            "Refuse": False,
        },
        [],
    )
