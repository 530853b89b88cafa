"""Pictures of a simulated scene, rendered into memory."""

from __future__ import annotations

from typing import Any

import numpy as np

from ssl_jax.control.simulator import Simulator, cannot_render

_GEOMS = 2000  # most shapes in a scene


class Camera:
  """Renders a model that belongs to the camera alone, at the positions of a simulation.

  Changes of the model's looks therefore cannot change the simulation. Shadows and multisampling are off: they
  take most of the time on a processor, and multisampling would blur the edges of the mask.
  """

  def __init__(self, simulator: Simulator, model: Any, size: int, number: int = 0):
    """
    Args:
      model: an MjModel that the camera may change.
      size: side of the square pictures in pixels.
      number: which camera of the model.
    Raises: ImportError if nothing can be rendered on this machine.
    """
    self._mujoco, self.model = simulator.mujoco, model
    self._data = self._mujoco.MjData(model)
    model.vis.global_.offwidth = model.vis.global_.offheight = size
    model.vis.quality.offsamples = model.vis.quality.shadowsize = 0
    try:
      self._screen = self._mujoco.GLContext(size, size)
      self._screen.make_current()
      self._context = self._mujoco.MjrContext(model, self._mujoco.mjtFontScale.mjFONTSCALE_50)
    except Exception as error:  # of whichever library renders
      raise cannot_render(error) from error
    self._mujoco.mjr_setBuffer(self._mujoco.mjtFramebuffer.mjFB_OFFSCREEN, self._context)
    self._scene = self._mujoco.MjvScene(model, _GEOMS)
    self._view = self._mujoco.MjvCamera()
    self._view.type, self._view.fixedcamid = self._mujoco.mjtCamera.mjCAMERA_FIXED, number
    self._options = self._mujoco.MjvOption()
    self._area = self._mujoco.MjrRect(0, 0, size, size)
    self._pixels = np.zeros((size, size, 3), np.uint8)

  def look(self, data: Any) -> None:
    """Takes over the positions of a simulation's MjData; the pictures show them until the next call."""
    own = self._data
    own.qpos[:], own.qvel[:] = data.qpos, data.qvel
    if self.model.nmocap:
      own.mocap_pos[:], own.mocap_quat[:] = data.mocap_pos, data.mocap_quat
    self._mujoco.mj_kinematics(self.model, own)
    self._mujoco.mj_comPos(self.model, own)
    self._mujoco.mj_camlight(self.model, own)
    everything = self._mujoco.mjtCatBit.mjCAT_ALL
    self._mujoco.mjv_updateScene(self.model, own, self._options, None, self._view, everything, self._scene)

  def picture(self) -> np.ndarray:
    """uint8[size, size, 3]."""
    return self._render().copy()

  def background(self) -> np.ndarray:
    """bool[size, size]: the pixels that show the sky or a plane."""
    kinds = self._mujoco.mjtRndFlag
    for flag in (kinds.mjRND_SEGMENT, kinds.mjRND_IDCOLOR):
      self._scene.flags[flag] = True
    numbers = self._render().astype(np.int64) @ np.array([1, 2**8, 2**16])
    for flag in (kinds.mjRND_SEGMENT, kinds.mjRND_IDCOLOR):
      self._scene.flags[flag] = False
    plane = self._mujoco.mjtGeom.mjGEOM_PLANE
    behind = {0} | {geom.segid + 1 for geom in self._scene.geoms[: self._scene.ngeom] if geom.type == plane}
    return np.isin(numbers, list(behind))

  def upload_textures(self) -> None:
    """Makes changes of the model's textures visible."""
    self._screen.make_current()
    for number in range(self.model.ntex):
      self._mujoco.mjr_uploadTexture(self.model, self._context, number)

  def close(self) -> None:
    """Frees the memory of the graphics library."""
    self._screen.make_current()
    self._context.free()
    self._screen.free()

  def _render(self) -> np.ndarray:
    self._screen.make_current()
    self._mujoco.mjr_render(self._area, self._scene, self._context)
    self._mujoco.mjr_readPixels(self._pixels, None, self._area, self._context)
    return self._pixels[::-1]
