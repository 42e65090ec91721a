//! Orders to open and close devices on their way to novad, which answers them with a new list of its devices.

use nova_api::cluster as pb;
use nova_ring::abi::AgentCommand;
use nova_units::DeviceId;

use crate::picture::Picture;

/// Hands novad an order to open what is in its configuration. One that it takes not now is given again by who asked for it.
pub(crate) fn open(picture: &Picture, order: &pb::OpenDevices) {
    let expected = order.known.iter().filter_map(|known| {
        Some(AgentCommand::ExpectDevice { device: device_id(&known.device)?, failed: known.failed })
    });
    let commands = expected.chain([AgentCommand::OpenDevices { order: order.order }]);
    if !commands.into_iter().all(|command| picture.command(command)) {
        tracing::warn!(order = order.order, "novad takes no commands now: its devices are not opened");
    }
}

/// Hands novad an order to close a device.
pub(crate) fn close(picture: &Picture, order: &pb::CloseDevice) {
    let Some(device) = device_id(&order.device) else { return };
    if !picture.command(AgentCommand::CloseDevice { order: order.order, device }) {
        tracing::warn!(order = order.order, %device, "novad takes no commands now: the device is not closed");
    }
}

fn device_id(bytes: &[u8]) -> Option<DeviceId> {
    let id = <[u8; 16]>::try_from(bytes);
    if id.is_err() {
        tracing::warn!("an order names a device of {} bytes, not 16", bytes.len());
    }
    Some(DeviceId(u128::from_be_bytes(id.ok()?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_devices_that_are_known_go_before_the_order_to_open() {
        let picture = Picture::new();
        let mut commands = picture.take_commands();
        picture.daemon.send_modify(|daemon| daemon.boot = 1);
        let known = |id: u8, failed| pb::KnownDevice { device: vec![id; 16].into(), failed };
        let short = pb::KnownDevice { device: vec![9; 3].into(), failed: false };
        open(&picture, &pb::OpenDevices { order: 7, known: vec![known(1, false), short, known(2, true)] });
        let device = |id: u8| DeviceId(u128::from_be_bytes([id; 16]));
        let mut said = Vec::new();
        while let Ok(command) = commands.try_recv() {
            said.push(command);
        }
        let wanted = [
            AgentCommand::ExpectDevice { device: device(1), failed: false },
            AgentCommand::ExpectDevice { device: device(2), failed: true },
            AgentCommand::OpenDevices { order: 7 },
        ];
        assert_eq!(said, wanted);
        close(&picture, &pb::CloseDevice { order: 8, device: vec![2; 16].into() });
        assert_eq!(commands.try_recv(), Ok(AgentCommand::CloseDevice { order: 8, device: device(2) }));
    }
}
